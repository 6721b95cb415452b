"""Training: classifier, teacher, and students of fewer and fewer sampling steps."""
