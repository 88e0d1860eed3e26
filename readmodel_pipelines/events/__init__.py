"""Events as the application stores them: ids, values, times and the integrity of a stream. Pure."""
