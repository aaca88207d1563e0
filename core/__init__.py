"""Floor 0: things that would fit any project and know nothing of this one."""
