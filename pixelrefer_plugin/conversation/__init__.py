"""Words: chat messages read, worded for a chat template, and expanded to token ids."""
