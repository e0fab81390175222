"""The DNA language model: its network, its windows, its score in bits a base, and the Markov models beside it."""
