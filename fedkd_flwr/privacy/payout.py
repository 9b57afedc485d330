"""What the codec kept back of a node's updates is sent under the settings that kept it back, or not at all."""

from dataclasses import dataclass

from fedkd_flwr.codec.settings import CodecSettings, codec_settings
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.errors import CodecError, ProtocolError


@dataclass(frozen=True)
class Terms:
    """Under which a state was trained.

    Attributes:
        run: `RunConfig.digest` of its run; "": it has not trained yet.
        rounds: of that run, by which budgets and energies go.
    """

    run: str = ""
    rounds: int = 0

    @classmethod
    def of(cls, config: RunConfig) -> "Terms":
        """Those of a run."""
        return cls(config.digest, config.num_rounds)

    def require(self, config: RunConfig, node: str) -> None:
        """Whether a state with these terms may go on in this run.

        Raises:
            ProtocolError: the run has other settings than the one that the state is of.
        """
        if self.run not in ("", config.digest):
            raise ProtocolError(
                f"node {node} has trained this lineage under another run-config: resume the run with the run-config "
                "that it began with, or start a new run"
            )

    def pay_out(self, config: RunConfig, round: int, student_bytes: int) -> bool:
        """Whether a round of this run may send what was kept back under these terms.

        It may not where another number of rounds leaves it more bytes, or a larger share of the energy, than the same
        round had: a run of 5MB/run could be cut to one round that then sends all that was owed.

        Args:
            config: of the run that goes on.
            round: that is encoded, from 1.
            student_bytes: as `codec_settings` takes them.
        """
        if self.rounds in (0, config.num_rounds):
            return True
        before = config.model_copy(update={"num_rounds": self.rounds})
        try:
            kept_back = codec_settings(before, min(round, self.rounds), student_bytes)
        except CodecError:
            return False
        return not _looser(codec_settings(config, round, student_bytes), kept_back)


def _looser(settings: CodecSettings, before: CodecSettings) -> bool:
    """Whether these let more through; budgets that are shared out to the last byte differ by one."""
    budget, least = settings.budget or 0, before.budget or 0
    return budget > least + 1 or settings.energy > before.energy
