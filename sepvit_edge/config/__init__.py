"""Files that users copy and edit: recipes, and the strict TOML behind them."""
