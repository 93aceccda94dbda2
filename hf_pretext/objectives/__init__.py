"""One file for each objective: its settings, corruption, head and loss. The name of the file is the objective's."""
