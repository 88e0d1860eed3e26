"""Events as the application stores them: catalogue, values, times and the integrity of a stream. Pure."""
