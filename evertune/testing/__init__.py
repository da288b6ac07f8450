"""Contract suites and fakes, shipped for plugin authors and used by evertune's own tests."""
