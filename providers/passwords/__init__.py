"""The processes that hash passwords."""
