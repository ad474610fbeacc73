"""What a plan opens to the outside. Ray's ports (6379, 8265, 10001 and the workers' range) must be reachable from the group alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

RULES = ("aws_vpc_security_group_ingress_rule", "aws_security_group_rule")
SOURCES = ("cidr_ipv4", "cidr_ipv6", "prefix_list_id", "cidr_blocks", "ipv6_cidr_blocks", "prefix_list_ids")


def resources(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every managed resource of a plan's JSON, all modules included."""

    def walk(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from ({"values": {}, **item} for item in module.get("resources", []) if item["mode"] == "managed")
        for child in module.get("child_modules", []):
            yield from walk(child)

    yield from walk(plan["planned_values"]["root_module"])


def open_to_outside(plan: dict[str, Any], *, private_cidr: str) -> list[str]:
    """Addresses of what lets traffic in from beyond the group, or gives a node a public address. Empty: nothing does.

    One exception: HTTPS from the private subnet to AWS's own private endpoints, which are no nodes.
    """
    return [
        resource["address"]
        for resource in resources(plan)
        if _lets_in(resource["type"], resource["values"], resource["address"], private_cidr)
        or _has_public_address(resource["type"], resource["values"])
    ]


def _lets_in(kind: str, values: dict[str, Any], address: str, private_cidr: str) -> bool:
    if kind in RULES and values.get("type") != "egress":
        sources = [values[key] for key in SOURCES if values.get(key)]
        endpoint = "endpoints" in address and sources == [private_cidr] and values["from_port"] == values["to_port"] == 443
        return not values or (bool(sources) and not endpoint)  # a rule of which nothing is known is not a safe one
    if kind == "aws_security_group":
        return bool(values.get("ingress"))
    if kind == "aws_default_security_group":
        return bool(values.get("ingress") or values.get("egress"))
    return kind in ("aws_lb", "aws_elb")


def _has_public_address(kind: str, values: dict[str, Any]) -> bool:
    if kind == "aws_instance":
        return values.get("associate_public_ip_address") is not False
    if kind == "aws_subnet":
        return bool(values.get("map_public_ip_on_launch"))
    if kind == "aws_launch_template":
        interfaces = values["network_interfaces"]
        asked = [item.get("associate_public_ip_address") for item in interfaces]
        return not interfaces or "true" in asked or (len(asked) == 1 and asked != ["false"])
    return kind == "aws_eip_association"
