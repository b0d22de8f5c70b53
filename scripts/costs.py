#!/usr/bin/env python3
"""Print what a deployment costs: at rest, for requests, and in the worst hour that its limits allow.

The settings are those of a deployment: variables of the environment and of the file .env. AWS_ACCOUNT_ID and AWS_REGION
may be missing. The prices are AWS's list prices of us-east-1. The free tier isn't counted, unless a line says so. If
there is a model in inference/model, its size counts. This needs no network.

Example:
    python scripts/costs.py
Example with a sum for a month:
    python scripts/costs.py --requests 10000 --tokens 700
Example with other settings, all parts and the prices of each:
    ALARMS=false LAMBDA_MEMORY_MIB=3008 python scripts/costs.py --all
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, ROOT, argument_parser, writing_stdout

import os
import sys

from costing import prices, usage
from costing.parts import Parts
from costing.rows import Costs
from costing.tables import USUAL_TOKENS, details, heading, notes, price_list, summary
from infrastructure.config import Config, ConfigError, settings
from similarity.api.routes import HandlerFileError
from similarity.errors import one_line

# Prices don't depend on these.
NOT_NEEDED = ("AWS_ACCOUNT_ID", "AWS_REGION")


def read_config() -> Config:
    """The settings. Raises ConfigError, but not for an account or a region."""
    config, problems = Config.with_problems(settings(os.environ, ROOT / ".env"))
    problems = tuple(problem for problem in problems if not problem.startswith(NOT_NEEDED))
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--requests", type=int, help="requests in a month; adds what they and the month cost")
    parser.add_argument(
        "--tokens",
        type=int,
        default=USUAL_TOKENS,
        help=f"tokens of a text, 1 to {usage.LONGEST_TOKENS:,} (default {USUAL_TOKENS})",
    )
    parser.add_argument("--all", action="store_true", help="print all parts and all list prices as well")
    args = parser.parse_args(argv)
    if args.requests is not None and not 1 <= args.requests <= prices.MOST_REQUESTS:
        parser.error(f"--requests must be from 1 to {prices.MOST_REQUESTS:,}, not {args.requests}")
    if not 1 <= args.tokens <= usage.LONGEST_TOKENS:
        parser.error(f"--tokens must be from 1 to {usage.LONGEST_TOKENS:,}, not {args.tokens}: a longer text is cut")
    try:
        costs = Costs(Parts.of(read_config(), INFERENCE_DIR))
    except (ConfigError, HandlerFileError, OSError) as error:
        for line in str(error).splitlines() if not isinstance(error, OSError) else [one_line(str(error))]:
            print(f"costs: {line}", file=sys.stderr)
        return 1
    texts = [heading(costs), summary(costs, args.tokens, args.requests)]
    if args.all:
        texts += [details(costs), price_list()]
    texts += notes(costs)
    with writing_stdout("costs"):
        print("\n\n".join(texts))
    return 0


if __name__ == "__main__":
    command.run(main)
