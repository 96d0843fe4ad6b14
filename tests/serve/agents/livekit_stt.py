"""LiveKit's openai.STT against a server: python livekit_stt.py URL WAV [realtime|rest]. Prints a JSON list.

Run by test_serve_agents.py with an interpreter that has livekit-plugins-openai.
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave

from livekit import rtc
from livekit.agents.utils import http_context
from livekit.plugins import openai


async def main(url: str, file: str, way: str) -> list[dict[str, str]]:
    with wave.open(file) as recording:
        rate, audio = recording.getframerate(), recording.readframes(recording.getnframes())
    async with http_context.open():
        # its defaults but for the address: server_vad, 350 ms of silence
        stt = openai.STT(base_url=f"{url}/v1", api_key="-", use_realtime=way == "realtime")
        if way == "rest":
            frame = rtc.AudioFrame(audio, rate, 1, len(audio) // 2)
            event = await stt.recognize([frame])
            return [{"type": event.type, "text": event.alternatives[0].text}]
        stream = stt.stream()
        events: list[dict[str, str]] = []

        async def collect() -> None:
            async for event in stream:
                events.append(
                    {"type": event.type, "text": event.alternatives[0].text if event.alternatives else ""}
                )
                if event.type == "final_transcript" and len(finals(events)) == 2:
                    return

        collecting = asyncio.ensure_future(collect())
        size = rate // 50 * 2
        for start in range(0, len(audio), size):
            part = audio[start : start + size]
            stream.push_frame(rtc.AudioFrame(part, rate, 1, len(part) // 2))
            await asyncio.sleep(0.005)
        await asyncio.wait_for(collecting, 50)
        await stream.aclose()
        await stt.aclose()
        return events


def finals(events: list[dict[str, str]]) -> list[dict[str, str]]:
    return [event for event in events if event["type"] == "final_transcript"]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:4]))))
    sys.stdout.flush()
