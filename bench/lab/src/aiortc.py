"""A browser outside as far as a call needs one, by aiortc: libsrtp judges every packet, PyAV decodes what is heard.

aiortc.py URL TOKEN STUN RECORDING: calls, and tells what happens, a JSON object a line on standard output: "connected", "packet" (the
first one, and each two hundredth: how many came so far), "fault" (whatever aiortc complains of). SIGUSR1 ends the call: "report" is
what was counted, and what was heard is in RECORDING, 16-bit samples at 8000 Hz, each at its timestamp.
"""

import asyncio
import json
import logging
import signal
import struct
import sys
import time
import urllib.request
import wave

import pylibsrtp
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription, rtcdtlstransport
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError

URL, TOKEN, STUN, RECORDING = sys.argv[1:5]
RATE = 8000


def tell(what, **more):
    print(json.dumps({"what": what, "at": time.time(), **more}), flush=True)


class Judge(pylibsrtp.Session):
    """libsrtp, with a book of what it took and what it refused."""

    book = {"received": 0, "refused": 0, "refused_rtcp": 0, "sources": [], "missing": 0, "jumps": [], "disorder": 0, "rewound": 0,
            "stuck": 0, "first": None, "wraps": 0, "longest_wait": 0.0}
    last = None

    def unprotect_rtcp(self, packet):
        try:
            return super().unprotect_rtcp(packet)
        except pylibsrtp.Error:
            self.book["refused_rtcp"] += 1
            raise

    def unprotect(self, packet):
        try:
            plain = super().unprotect(packet)
        except pylibsrtp.Error as error:
            self.book["refused"] += 1
            tell("fault", text=f"libsrtp refuses a packet: {error}")
            raise
        self.note(*struct.unpack("!HII", plain[2:12]))
        return plain

    def note(self, sequence, timestamp, ssrc):
        book, now = self.book, time.monotonic()
        book["received"] += 1
        if ssrc not in book["sources"]:
            book["sources"].append(ssrc)
        if self.last is None:
            book["first"] = sequence
        else:
            was, stamp, at = self.last
            step = (sequence - was) & 0xFFFF
            if step >= 0x8000 or step == 0:
                book["disorder"] += 1
                return
            if step > 1:
                book["missing"] += step - 1
                book["jumps"].append(step - 1)
            book["wraps"] += sequence < was
            passed = (timestamp - stamp) & 0xFFFFFFFF
            book["rewound"] += passed >= 0x80000000
            book["stuck"] += passed == 0
            book["longest_wait"] = max(book["longest_wait"], now - at)
        if book["received"] % 200 == 1:
            tell("packet", received=book["received"])
        self.last = sequence, timestamp, now


class Ear:
    """What was decoded: samples at their timestamps."""

    def __init__(self):
        self.pieces, self.frames, self.torn = [], 0, 0

    async def listen(self, track):
        origin = None
        try:
            while True:
                frame = await track.recv()
                origin = frame.pts if origin is None else origin
                self.pieces.append((frame.pts - origin, bytes(frame.planes[0])[:2 * frame.samples]))
                self.frames += 1
        except MediaStreamError:
            pass

    def write(self):
        end = max((at + len(piece) // 2 for at, piece in self.pieces), default=0)
        # Nobody talks for half an hour here: a timestamp that says so is a fault, and no reason to fill the disk.
        end = min(end, RATE * 1800)
        samples = bytearray(2 * end)
        for at, piece in self.pieces:
            if at >= 0 and at + len(piece) // 2 <= end:
                samples[2 * at:2 * at + len(piece)] = piece
            else:
                self.torn += 1
        with wave.open(RECORDING, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(samples)


class Complaints(logging.Handler):
    def emit(self, record):
        tell("fault", text=record.getMessage())


def ask(method, url, body=None):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/sdp"}
    request = urllib.request.Request(url, data=body and body.encode(), headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=40) as response:
        return response.headers.get("Location"), response.read().decode()


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: tell("fault", text=str(context.get("exception") or context["message"])))
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, over.set)
    peer = RTCPeerConnection(RTCConfiguration([RTCIceServer("stun:" + STUN)]))
    ear = Ear()
    peer.on("track", lambda track: asyncio.ensure_future(ear.listen(track)))
    connected = asyncio.Event()

    @peer.on("connectionstatechange")
    def changed():
        if peer.connectionState == "connected":
            connected.set()
        elif peer.connectionState == "failed":
            tell("fault", text="the connection has failed")

    peer.addTrack(AudioStreamTrack())
    await peer.setLocalDescription(await peer.createOffer())
    location, answer = await asyncio.to_thread(ask, "POST", URL, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(connected.wait(), 30)
    tell("connected")
    await over.wait()
    state = peer.connectionState
    await asyncio.to_thread(ask, "DELETE", urllib.request.urljoin(URL, location))
    await peer.close()
    await asyncio.to_thread(ear.write)
    tell("report", state=state, frames=ear.frames, torn=ear.torn, **Judge.book)


handler = Complaints(logging.WARNING)
logging.getLogger().addHandler(handler)
rtcdtlstransport.Session = Judge
asyncio.run(main())
