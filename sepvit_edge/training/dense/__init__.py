"""Training for segmentation and detection: images with masks or boxes, losses, loop, figures."""
