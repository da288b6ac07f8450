"""One module per family of verbs. A function named `VERB_` is the verb; its docstring is the verb's help."""
