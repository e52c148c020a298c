"""Many ranks that do one rank's work: who they are, how they agree, how they share a model."""
