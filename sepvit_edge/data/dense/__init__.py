"""Images for dense prediction: with a class for each pixel, or with boxes."""
