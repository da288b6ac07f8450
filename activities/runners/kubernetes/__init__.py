"""Runs attempts as objects of a Kubernetes cluster: Jobs, Kubeflow's training jobs, any kind with conditions."""
