"""A SIP phone with a picture: answers one call after the other, GStreamer carries its media.

film.py ADDRESS SIP-PORT MEDIA-PORT [lose]: RTP of the sound at MEDIA-PORT, of the picture two above, RTCP one above each. A
JSON object a line on standard output tells what happens: "ready", "call", "added" (a picture, in mid-call), "picture" (the first one), "seen" (twice a second:
pictures decoded so far, the mean colour of the last one), "lost" (a key frame, whole), "key" (one was asked of us), "level"
(the first packet of the sound that says how loud it is, where that was offered: RFC 6464), "over".
With "lose" the first key frame that comes is lost, and by SIGUSR1 the next one.
"""

import json
import os
import re
import signal
import socket
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gio, GLib, Gst, GstVideo  # noqa: E402

ADDRESS, SIP, MEDIA = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
# Octets of the longest RTP packet of the picture, which is red; or noise, of which nearly all are as long.
MTU = int(os.environ.get("FILM_MTU", 1200))
PATTERN, RATE = ("snow", 1000000) if "FILM_MTU" in os.environ else ("red", 300000)
FAMILY = "IP6" if ":" in ADDRESS else "IP4"


def tell(what, **more):
    print(json.dumps({"what": what, "at": time.time(), **more}), flush=True)


def bound(port):
    address = Gio.InetSocketAddress.new_from_string(ADDRESS, port)
    made = Gio.Socket.new(address.get_family(), Gio.SocketType.DATAGRAM, Gio.SocketProtocol.UDP)
    made.bind(address, False)
    return made


class Media:
    """The pipeline of one call."""

    def __init__(self, sockets, offer):
        self.decoded, self.lose, self.colour, self.lost_at = 0, "lose" in sys.argv[4:], None, None
        self.level = offer["level"] and int(offer["level"])
        self.pipeline = Gst.Pipeline.new(None)
        # AVPF: a key frame is asked for at once, by PLI.
        self.bin = self.make("rtpbin", rtp_profile="avpf", latency=40, autoremove=True)
        self.bin.connect("pad-added", self.arrived)
        picture, numbers = offer["video"], offer["numbers"]
        self.shows, self.over = bool(picture), False
        self.session(0, sockets[:2], offer["audio"], "audio", "PCMU", 8000, 0)
        if picture:
            self.session(1, sockets[2:], picture, "video", "VP8", 90000, numbers)
            self.send(1, f"videotestsrc is-live=true pattern={PATTERN} ! video/x-raw,width=320,height=240,framerate=15/1 ! "
                         f"vp8enc name=encoder deadline=1 keyframe-max-dist=100000 target-bitrate={RATE} ! "
                         f"rtpvp8pay pt={numbers} mtu={MTU}")
        self.send(0, "audiotestsrc is-live=true freq=1000 ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay pt=0")
        self.pipeline.set_state(Gst.State.PLAYING)

    def make(self, kind, **properties):
        element = Gst.ElementFactory.make(kind, None)
        for name, value in properties.items():
            element.set_property(name.replace("_", "-"), value)
        self.pipeline.add(element)
        return element

    def session(self, at, pair, far, medium, name, clock, number):
        feedback = ",rtcp-fb-nack-pli=true,rtcp-fb-ccm-fir=true" if medium == "video" else ""
        caps = Gst.Caps.from_string(f"application/x-rtp,media={medium},clock-rate={clock},encoding-name={name},"
                                    f"payload={number}{feedback}")
        rtp = self.make("udpsrc", socket=pair[0], close_socket=False, caps=caps)
        rtcp = self.make("udpsrc", socket=pair[1], close_socket=False, caps=Gst.Caps.from_string("application/x-rtcp"))
        rtp.link_pads("src", self.bin, f"recv_rtp_sink_{at}")
        rtcp.link_pads("src", self.bin, f"recv_rtcp_sink_{at}")
        sink = self.make("udpsink", socket=pair[1], close_socket=False, host=far[0], port=far[2], sync=False)
        setattr(sink.props, "async", False)
        self.bin.link_pads(f"send_rtcp_src_{at}", sink, "sink")
        if medium == "video":
            rtp.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, self.incoming)
        elif self.level:
            rtp.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, self.loud)
        self.sinks = getattr(self, "sinks", {})
        self.sinks[at] = self.make("udpsink", socket=pair[0], close_socket=False, host=far[0], port=far[1], sync=False)
        setattr(self.sinks[at].props, "async", False)

    def send(self, at, description):
        source = Gst.parse_bin_from_description(description, True)
        self.pipeline.add(source)
        source.link_pads("src", self.bin, f"send_rtp_sink_{at}")
        self.bin.link_pads(f"send_rtp_src_{at}", self.sinks[at], "sink")
        encoder = source.get_by_name("encoder")
        if encoder:
            encoder.get_static_pad("src").add_probe(Gst.PadProbeType.EVENT_UPSTREAM, self.asked)

    def asked(self, _, info):
        if GstVideo.video_event_is_force_key_unit(info.get_event()):
            tell("key")
        return Gst.PadProbeReturn.OK

    def incoming(self, _, info):
        """Loses one whole key frame where that was asked for: VP8's first octets tell (RFC 7741)."""
        ok, view = info.get_buffer().map(Gst.MapFlags.READ)
        if not ok:
            return Gst.PadProbeReturn.OK
        octets = bytes(view.data)
        info.get_buffer().unmap(view)
        stamp, at = octets[4:8], 12
        extended, start = octets[at] & 0x80, octets[at] & 0x10 and octets[at] & 7 == 0
        at += 1
        if extended:
            flags = octets[at]
            at += 1
            if flags & 0x80:
                at += 2 if octets[at] & 0x80 else 1
            at += bool(flags & 0x40) + bool(flags & 0x30)
        if self.lose and start and not octets[at] & 1:
            self.lose, self.lost_at = False, stamp
            tell("lost")
        return Gst.PadProbeReturn.DROP if self.lost_at == stamp else Gst.PadProbeReturn.OK

    def loud(self, _, info):
        """The one element of one-byte form that was agreed on, and nothing else (RFC 8285 section 4.2)."""
        ok, view = info.get_buffer().map(Gst.MapFlags.READ)
        octets = bytes(view.data) if ok else bytes(12)
        if ok:
            info.get_buffer().unmap(view)
        if self.level and octets[0] == 0x90 and octets[12:17] == bytes([0xbe, 0xde, 0, 1, self.level << 4]):
            self.level = None
            tell("level", level=octets[17] & 0x7f)
        return Gst.PadProbeReturn.OK

    def arrived(self, _, pad):
        if not pad.get_name().startswith("recv_rtp_src_"):
            return
        video = pad.get_name().startswith("recv_rtp_src_1")
        end = ("rtpvp8depay request-keyframe=true wait-for-keyframe=true ! vp8dec ! videoconvert ! videoscale ! "
               "video/x-raw,format=RGB,width=16,height=16 ! "
               "appsink name=seen emit-signals=true sync=false") if video else "fakesink sync=false"
        end = Gst.parse_bin_from_description(end, True)
        self.pipeline.add(end)
        if video:
            end.get_by_name("seen").connect("new-sample", self.picture)
        end.sync_state_with_parent()
        pad.link(end.get_static_pad("sink"))

    def picture(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        ok, view = buffer.map(Gst.MapFlags.READ)
        if ok:
            octets = bytes(view.data)
            buffer.unmap(view)
            self.colour = [sum(octets[at::3]) // (len(octets) // 3) for at in range(3)]
            self.decoded += 1
            if self.decoded == 1:
                tell("picture", colour=self.colour)
        return Gst.FlowReturn.OK

    def report(self):
        if not self.over:
            tell("seen", pictures=self.decoded, colour=self.colour)
        return not self.over

    def end(self):
        self.over = True
        self.pipeline.set_state(Gst.State.NULL)


def read_offer(text):
    """Where the other side wants its media, and its number of VP8."""
    found = {"audio": None, "video": None, "numbers": 96, "order": [], "level": None}
    address = re.search(r"^c=IN IP[46] (\S+)", text, re.M).group(1)
    for section in re.split(r"^(?=m=)", text, flags=re.M)[1:]:
        kind, port = re.match(r"m=(\w+) (\d+)", section).groups()
        own = re.search(r"^c=IN IP[46] (\S+)", section, re.M)
        rtcp = re.search(r"^a=rtcp:(\d+)", section, re.M)
        found["order"].append(section.split("\r\n", 1)[0])
        vp8 = re.search(r"^a=rtpmap:(\d+) VP8/90000", section, re.M | re.I)
        level = re.search(r"^a=extmap:(\d+) urn:ietf:params:rtp-hdrext:ssrc-audio-level", section, re.M)
        if kind == "audio" and level:
            found["level"] = level.group(1)
        if int(port) and (kind == "audio" or vp8):
            rtcp_port = int(rtcp.group(1)) if rtcp else int(port) + 1
            found[kind] = (own.group(1) if own else address, int(port), rtcp_port)
            if kind == "video":
                found["numbers"] = int(vp8.group(1))
    return found


def describe(offer):
    lines = ["v=0", f"o=film 1 1 IN {FAMILY} {ADDRESS}", "s=-", f"c=IN {FAMILY} {ADDRESS}", "t=0 0"]
    for line in offer["order"]:
        kind, _, rest = line[2:].split(" ", 2)
        if kind == "audio":
            lines += [f"m=audio {MEDIA} RTP/AVP 0", "a=rtpmap:0 PCMU/8000"]
            if offer["level"]:
                lines.append(f"a=extmap:{offer['level']} urn:ietf:params:rtp-hdrext:ssrc-audio-level")
        elif kind == "video" and offer["video"]:
            number = offer["numbers"]
            lines += [f"m=video {MEDIA + 2} RTP/AVP {number}", f"a=rtpmap:{number} VP8/90000",
                      f"a=rtcp-fb:{number} nack pli", f"a=rtcp-fb:{number} ccm fir"]
        else:
            lines.append(f"m={kind} 0 {rest}")
    return "\r\n".join(lines) + "\r\n"


class Phone:
    """As much of SIP over UDP as one who is called needs."""

    def __init__(self):
        self.media = None
        self.sockets = [bound(MEDIA + at) for at in range(4)]
        self.socket = socket.socket(socket.AF_INET6 if FAMILY == "IP6" else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((ADDRESS, SIP))
        GLib.io_add_watch(self.socket.fileno(), GLib.IO_IN, self.request)
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGUSR1, self.lose)

    def lose(self):
        if self.media:
            self.media.lose = True
        return True

    def request(self, *_):
        text, source = self.socket.recvfrom(65536)
        text = text.decode(errors="replace")
        head, _, body = text.partition("\r\n\r\n")
        method = head.split(" ", 1)[0]
        if method == "INVITE":
            offer = read_offer(body)
            self.answer(head, source, describe(offer))
            if self.media is None or (offer["video"] and not self.media.shows):
                tell("call" if self.media is None else "added")
                if self.media:
                    self.media.end()
                self.media = Media(self.sockets, offer)
                GLib.timeout_add(500, self.media.report)
        elif method in ("BYE", "CANCEL", "OPTIONS"):
            self.answer(head, source, "")
            if method == "BYE":
                tell("over", pictures=self.media.decoded if self.media else 0)
        return True

    def answer(self, head, source, body):
        lines = head.split("\r\n")[1:]
        keep = [line for line in lines if re.match(r"(via|from|call-id|cseq|record-route)\s*:", line, re.I)]
        to = next(line for line in lines if re.match(r"to\s*:", line, re.I))
        keep.append(to if ";tag=" in to else to + ";tag=film")
        keep.append(f"Contact: <sip:film@{ADDRESS}:{SIP}>")
        if body:
            keep.append("Content-Type: application/sdp")
        answer = "\r\n".join(["SIP/2.0 200 OK", *keep, f"Content-Length: {len(body)}", "", body])
        self.socket.sendto(answer.encode(), source)


Gst.init(None)
phone = Phone()
tell("ready")
GLib.MainLoop().run()
