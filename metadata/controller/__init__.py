"""The controller: pure decisions over an image, and the shell that runs them on the active controller."""
