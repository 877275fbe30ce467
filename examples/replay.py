"""Replay in Python: a generated stream, ranked before each event is learnt, beside counting baselines.

Run it: ``python examples/replay.py``. ``recurra.simulations.datasets.load`` reads a file of yours.
"""

import recurra
from recurra.simulations.replay import replay
from recurra.simulations.synthetic import stream


def main() -> None:
    """Replay 1,500 events and print HR@10 of the engine and of two baselines."""
    result = replay(
        stream("stationary", 1_500, seed=1),
        config=recurra.Config(),
        every=3,
        baselines="popularity,markov",
        seed=1,
    )
    print(f"{result['evaluated']} of {result['events']} events ranked")
    for name, figures in {"recurra": result["recurra"], **result["baselines"]}.items():
        print(f"{name:<12} HR@10 {figures['hr@10']:.3f}  NDCG@10 {figures['ndcg@10']:.3f}")
    # the best that is possible: the probabilities that the stream was drawn from
    print(f"{'truth':<12} HR@10 {result['truth']['hr@10']:.3f}")


if __name__ == "__main__":
    main()
