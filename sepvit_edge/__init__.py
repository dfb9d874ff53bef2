"""SepViT-Edge."""
