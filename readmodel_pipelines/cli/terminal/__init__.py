"""What every command shares: how it is made, what it takes, how much it says, and how that looks."""
