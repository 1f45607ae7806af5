"""What runs on the device itself: standard library only, and nothing of this package."""
