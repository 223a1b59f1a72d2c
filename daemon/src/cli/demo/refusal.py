"""What a book.py says when an entry was not made, or was not said to be made."""


class Refusal(Exception):
    """`remedy` is "wait" (then `seconds`, with what is open), "reopen" (the route), or "wonder": as
    reopen, about an error that no fence and no move gives.
    """

    def __init__(self, name, remedy, seconds=0.0):
        super().__init__(name)
        self.name, self.remedy, self.seconds = name, remedy, seconds
