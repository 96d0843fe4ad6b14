"""Pipecat's OpenAI Realtime STT against a server: python pipecat_stt.py URL WAV [server|local]. Prints a JSON list.

server: the server detects turns. local: the pipeline says when the user stops, and the service commits. Run by
test_serve_agents.py with an interpreter that has pipecat-ai.
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService


class Collector(FrameProcessor):
    """What comes out of the service."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, str]] = []
        self.done = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, (TranscriptionFrame, InterimTranscriptionFrame)):
            self.events.append({"type": type(frame).__name__, "text": frame.text})
            if len([e for e in self.events if e["type"] == "TranscriptionFrame"]) == 2:
                self.done.set()
        await self.push_frame(frame, direction)


async def main(url: str, file: str, way: str) -> list[dict[str, str]]:
    with wave.open(file) as recording:
        rate, audio = recording.getframerate(), recording.readframes(recording.getnframes())
    stt = OpenAIRealtimeSTTService(
        api_key="-",
        base_url=f"{url.replace('http', 'ws', 1)}/v1/realtime",
        turn_detection={"type": "server_vad"} if way == "server" else False,
    )
    collector = Collector()
    task = PipelineTask(Pipeline([stt, collector]), params=PipelineParams(audio_in_sample_rate=rate))
    running = asyncio.ensure_future(PipelineRunner(handle_sigint=False).run(task))
    await asyncio.sleep(1.0)
    half = len(audio) // 4 * 2
    for part in (audio[:half], audio[half:]):
        if way == "local":
            await task.queue_frame(VADUserStartedSpeakingFrame())
        size = rate // 50 * 2
        for start in range(0, len(part), size):
            piece = part[start : start + size]
            await task.queue_frame(InputAudioRawFrame(audio=piece, sample_rate=rate, num_channels=1))
            await asyncio.sleep(0.005)
        if way == "local":
            await task.queue_frame(VADUserStoppedSpeakingFrame())
            await asyncio.sleep(0.5)
    await asyncio.wait_for(collector.done.wait(), 50)
    await task.queue_frame(EndFrame())
    await asyncio.wait_for(running, 30)
    return collector.events


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:4]))))
    sys.stdout.flush()
