"""Images in: folders of images, the built-in data sets, and the one preprocessing rule.

Nothing here needs torch.
"""
