"""Ways of scoring predictions, each as the tool that it comes from has it."""
