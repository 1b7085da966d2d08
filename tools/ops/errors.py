"""An error that a command ends with, and whose text a person reads. It needs no boto3."""


class Refused(Exception):
    """The reason why a command did not do its work, and what to do."""
