"""A deployed stack, as CloudFormation describes it."""

from typing import Optional

from botocore.exceptions import ClientError

from ops.errors import Refused
from ops.refusal import LOG_IN
from ops.running import MAY_HAVE_ENDED
from ops.subscribers import client

NAME = "sendpilot-opportunity-alerts"  # of the stack, where nobody says otherwise


def outputs(stack_name: str) -> dict[str, str]:
    """Returns the outputs of a deployed stack, by name."""
    return outputs_of(described(stack_name))


def described(stack_name: Optional[str]) -> dict:
    """Returns a deployed stack as CloudFormation describes it, or the one of `make run` if there is no name.

    Raises Refused if there is none.
    """
    try:
        return client("cloudformation").describe_stacks(StackName=stack_name or NAME)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        if not stack_name:
            raise Refused(f"The local AWS has no {NAME}. {MAY_HAVE_ENDED}") from None
        raise Refused(f"There is no {stack_name} here. Deploy it, or give the right name. {LOG_IN}") from None


def outputs_of(stack: dict) -> dict[str, str]:
    """Returns the outputs of a described stack, by name."""
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def output_of(stack: dict, name: str) -> str:
    """Returns one output of a described stack. Raises Refused if there is none."""
    try:
        return outputs_of(stack)[name]
    except KeyError:
        raise Refused(f"{stack['StackName']} is not a stack of this template: it has no output {name}.") from None


def log_group(stack_name: str, function: str) -> str:
    """Returns the log group of a stack's function, `webhook` or `redrive`."""
    return f"/aws/lambda/{stack_name}-{function}"


def parameters_of(stack: dict) -> dict[str, Optional[str]]:
    """Returns the parameters of a described stack, by name."""
    return {one["ParameterKey"]: one.get("ParameterValue") for one in stack.get("Parameters", [])}
