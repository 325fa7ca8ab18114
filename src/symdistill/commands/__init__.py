"""What `symdistill COMMAND` does, one module for each command."""
