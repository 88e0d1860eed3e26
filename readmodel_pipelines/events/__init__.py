"""Events as the application stores them: catalogue, ids, values, times and the integrity of a stream. Pure."""
