class UserError(ValueError):
    """What the user gave is wrong: a file, a config key, an option, an argument. The message says what was expected and found.

    The tools print its message alone; any other exception is a fault of the program and keeps its traceback.
    """
