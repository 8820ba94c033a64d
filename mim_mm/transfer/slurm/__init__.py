"""The chain on a cluster: jobs that submit, wait for and restart the stages."""
