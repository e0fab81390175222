"""The diagonal state space model S4D, the same at every position: as one long convolution, or as a recurrence."""
