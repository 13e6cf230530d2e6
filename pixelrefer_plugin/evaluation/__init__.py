"""How good the answers are: held-out answers, and metrics of words and masks."""
