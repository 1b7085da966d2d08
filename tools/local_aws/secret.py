"""Reads and changes a deployed secret."""

import boto3


class Secret:
    """One secret in Secrets Manager: the signing secret or the API key."""

    def __init__(self, arn: str):
        self._client = boto3.client("secretsmanager")
        self.arn = arn

    def value(self) -> str:
        """Returns the current value."""
        return self._client.get_secret_value(SecretId=self.arn)["SecretString"]

    def put(self, value: str) -> None:
        """Stores a value. The value before becomes the previous version."""
        self._client.put_secret_value(SecretId=self.arn, SecretString=value)
