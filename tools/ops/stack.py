"""A deployed stack, as CloudFormation describes it."""

from typing import Optional

from botocore.exceptions import ClientError

from ops.errors import Refused
from ops.refusal import DEPLOY_OR_LOG_IN
from ops.running import MAY_HAVE_ENDED
from ops.subscribers import client

NAME = "sendpilot-opportunity-alerts"  # the default name of the stack
RECONCILE_OUTPUT = "ReconcileFunctionName"  # a stack has it only if the reconciliation is on


def outputs(stack_name: str) -> dict[str, str]:
    """Returns the outputs of a deployed stack, by name."""
    return outputs_of(described(stack_name))


def described(stack_name: Optional[str]) -> dict:
    """Returns CloudFormation's description of a stack, by default of the stack of `make run`.

    Raises Refused if the stack does not exist.
    """
    try:
        return client("cloudformation").describe_stacks(StackName=stack_name or NAME)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        if not stack_name:
            raise Refused(f"The local AWS has no stack {NAME}. {MAY_HAVE_ENDED}") from None
        raise Refused(f"There is no stack {stack_name} here. {DEPLOY_OR_LOG_IN}") from None


def outputs_of(stack: dict) -> dict[str, str]:
    """Returns the outputs of a described stack, by name."""
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def output_of(stack: dict, name: str) -> str:
    """Returns one output of a described stack.

    Raises Refused if the stack does not have the output.
    """
    try:
        return outputs_of(stack)[name]
    except KeyError:
        raise Refused(f"{stack['StackName']} is not a stack of this template: it has no output {name}.") from None


def reconciles(stack: dict) -> bool:
    """Returns whether the reconciliation of a described stack is on."""
    return RECONCILE_OUTPUT in outputs_of(stack)


def reconciliation_is_off(stack: dict, local: bool) -> str:
    """Returns one line: the reconciliation is off, and how to turn it on."""
    command = "make run" if local else "sam deploy --parameter-overrides"
    turn_on = f"set ReconcileMinutes, for example: {command} ReconcileMinutes=60"
    return f"The reconciliation of {stack['StackName']} is off. To turn it on, {turn_on}"


def log_group(stack_name: str, function: str) -> str:
    """Returns the log group of a stack's function: `webhook`, `redrive` or `reconcile`."""
    return f"/aws/lambda/{stack_name}-{function}"


def parameters_of(stack: dict) -> dict[str, Optional[str]]:
    """Returns the parameters of a described stack, by name."""
    return {one["ParameterKey"]: one.get("ParameterValue") for one in stack.get("Parameters", [])}
