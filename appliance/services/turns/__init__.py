"""One turn of an agent: prompt, rounds of model and tools, what is kept of it."""
