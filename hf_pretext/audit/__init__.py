"""What did it learn by, what does it ignore, what is it worth? Measures of features and of pretext tasks, in bits."""
