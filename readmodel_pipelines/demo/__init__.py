"""Sample data, damage, and the demo made of both."""
