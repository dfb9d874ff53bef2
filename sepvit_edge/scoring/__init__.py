"""How good class maps and boxes are: mean IoU, average precision, agreement of two models."""
