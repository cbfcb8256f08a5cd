"""What is searched: one declarative module a study. `STUDY` in each is found by its file's name."""
