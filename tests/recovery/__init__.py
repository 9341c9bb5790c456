"""Real processes that are killed, stopped and cut off while they answer; an app, so that its agents are found."""
