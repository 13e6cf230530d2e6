"""Answers to any number of questions, kept in files as they are made."""
