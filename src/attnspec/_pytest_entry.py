"""What pytest loads at start: nothing but a hook."""
