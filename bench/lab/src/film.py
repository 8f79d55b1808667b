"""A SIP phone with a picture: answers one call after the other, GStreamer carries its media.

film.py ADDRESS SIP-PORT MEDIA-PORT [WORD]...: RTP of the sound at MEDIA-PORT, of the picture two above, RTCP one above each. A
JSON object a line on standard output tells what happens: "ready", "call", "added" (a picture, in mid-call), "gone" (it, in mid-call), "refused" (one that
we wanted), "picture" (the first one), "seen" (twice a second: pictures decoded so far, the mean colour of the last one), "lost" (a key frame, whole),
"key" (one was asked of us), "level" (the first packet of the sound that says how loud it is, where that was offered: RFC 6464), "over".
Words: "lose" loses the first key frame that comes, and by SIGUSR1 the next one; "VP8" (as without), "VP9" or "H264" is what it speaks;
"srtp" encrypts, sound and picture under keys and by suites of their own. By SIGUSR2 it adds a picture to
the call, or drops it, by a re-INVITE, with "update" by an UPDATE.
"""

import base64
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
WORDS = sys.argv[4:]
# Octets of the longest RTP packet of the picture, which is red; or noise, of which nearly all are as long.
MTU = int(os.environ.get("FILM_MTU", 1200))
PATTERN, RATE = ("snow", 1000000) if "FILM_MTU" in os.environ else ("red", 300000)
FAMILY = "IP6" if ":" in ADDRESS else "IP4"
CODEC = next((word for word in WORDS if word in ("VP8", "VP9", "H264")), "VP8")
# Encoder and packetizer; depacketizer and decoder. Key frames come when they are asked for.
SPEAKS = {
    "VP8": (f"vp8enc name=encoder deadline=1 keyframe-max-dist=100000 target-bitrate={RATE} ! rtpvp8pay",
            "rtpvp8depay request-keyframe=true wait-for-keyframe=true ! vp8dec"),
    "VP9": ("vp9enc name=encoder deadline=1 cpu-used=8 keyframe-max-dist=100000 target-bitrate=300000 ! rtpvp9pay",
            "rtpvp9depay request-keyframe=true wait-for-keyframe=true ! vp9dec"),
    "H264": ("x264enc name=encoder tune=zerolatency speed-preset=ultrafast bitrate=300 key-int-max=100000 ! "
             "video/x-h264,profile=constrained-baseline ! rtph264pay config-interval=-1 aggregate-mode=zero-latency",
             "rtph264depay request-keyframe=true wait-for-keyframe=true ! avdec_h264"),
}
ENCODER, DECODER = SPEAKS[CODEC]
# Constrained baseline at level 3.1, in fragments (RFC 6184).
FMTP = {"H264": "packetization-mode=1;profile-level-id=42e01f", "VP9": "profile-id=0"}.get(CODEC)
# Of each medium its suite, as SDP and as GStreamer call it, octets of key and salt, and authentication.
SUITES = {
    "audio": ("AES_CM_128_HMAC_SHA1_80", "aes-128-icm", 30, "hmac-sha1-80"),
    "video": ("AEAD_AES_128_GCM", "aes-128-gcm", 28, "null"),
}


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
        self.decoded, self.lose, self.colour, self.lost_at = 0, "lose" in WORDS, None, None
        self.level = offer["level"] and int(offer["level"])
        self.pipeline = Gst.Pipeline.new(None)
        # AVPF: a key frame is asked for at once, by PLI.
        self.bin = self.make("rtpbin", rtp_profile="avpf", latency=40, autoremove=True)
        self.bin.connect("pad-added", self.arrived)
        if "srtp" in WORDS:
            self.encrypt(offer)
        picture, numbers = offer["video"], offer["numbers"]
        self.shows, self.over = bool(picture), False
        self.session(0, sockets[:2], offer["audio"], "audio", "PCMU", 8000, 0)
        if picture:
            self.session(1, sockets[2:], picture, "video", CODEC, 90000, numbers)
            self.send(1, f"videotestsrc is-live=true pattern={PATTERN} ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 ! "
                         f"{ENCODER} pt={numbers} mtu={MTU}")
        self.send(0, "audiotestsrc is-live=true freq=1000 ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay pt=0")
        self.pipeline.set_state(Gst.State.PLAYING)

    def encrypt(self, offer):
        made = {}

        def seals(medium, at):
            _, cipher, _, auth = SUITES[medium]
            sealer = Gst.ElementFactory.make("srtpenc", None)
            sealer.set_property("key", Gst.Buffer.new_wrapped(offer["ours"][medium]))
            for of in ("rtp", "rtcp"):
                sealer.set_property(f"{of}-cipher", cipher)
                sealer.set_property(f"{of}-auth", auth)
                # The session looks for pads that are there.
                sealer.request_pad_simple(f"{of}_sink_{at}")
            return sealer

        def opens(medium, _):
            _, cipher, _, auth = SUITES[medium]
            opener = Gst.ElementFactory.make("srtpdec", None)
            key = offer["crypto"][medium][1].hex()
            caps = (f"application/x-srtp,srtp-key=(buffer){key},srtp-cipher={cipher},srtp-auth={auth},"
                    f"srtcp-cipher={cipher},srtcp-auth={auth}")
            opener.connect("request-key", lambda *_: Gst.Caps.from_string(caps))
            return opener

        def either(make):
            def of_session(_, at):
                if (make, at) not in made:
                    made[make, at] = make("video" if at else "audio", at)
                return made[make, at]
            return of_session

        for signal_name, make in (("encoder", seals), ("decoder", opens)):
            for of in ("rtp", "rtcp"):
                self.bin.connect(f"request-{of}-{signal_name}", either(make))

    def make(self, kind, **properties):
        element = Gst.ElementFactory.make(kind, None)
        for name, value in properties.items():
            element.set_property(name.replace("_", "-"), value)
        self.pipeline.add(element)
        return element

    def session(self, at, pair, far, medium, name, clock, number):
        feedback = ",rtcp-fb-nack-pli=true,rtcp-fb-ccm-fir=true" if medium == "video" else ""
        kind = "srtp" if "srtp" in WORDS else "rtp"
        caps = Gst.Caps.from_string(f"application/x-{kind},media={medium},clock-rate={clock},encoding-name={name},"
                                    f"payload={number}{feedback}")
        rtp = self.make("udpsrc", socket=pair[0], close_socket=False, caps=caps)
        rtcp = self.make("udpsrc", socket=pair[1], close_socket=False, caps=Gst.Caps.from_string(f"application/x-{kind[:-1]}cp"))
        rtp.link_pads("src", self.bin, f"recv_rtp_sink_{at}")
        rtcp.link_pads("src", self.bin, f"recv_rtcp_sink_{at}")
        sink = self.make("udpsink", socket=pair[1], close_socket=False, host=far[0], port=far[2], sync=False)
        setattr(sink.props, "async", False)
        self.bin.link_pads(f"send_rtcp_src_{at}", sink, "sink")
        if medium == "video" and CODEC == "VP8" and kind == "rtp":
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
        end = (f"{DECODER} ! videoconvert ! videoscale ! "
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


def number_of(section):
    """The number of our codec: of H.264 that of the profile and the packetization that we speak (RFC 6184 section 8.2.2)."""
    for number in re.findall(rf"^a=rtpmap:(\d+) {CODEC}/90000", section, re.M | re.I):
        fmtp = re.search(rf"^a=fmtp:{number} (.*?)\r?$", section, re.M)
        values = dict(re.findall(r"([\w-]+)=([^;\s]+)", fmtp.group(1) if fmtp else ""))
        baseline = values.get("profile-level-id", "42").startswith("42") and values.get("packetization-mode") == "1"
        if (CODEC == "H264" and baseline) or (CODEC == "VP9" and values.get("profile-id", "0") == "0") or CODEC == "VP8":
            return int(number)
    return None


def read_offer(text, ours):
    """Where the other side wants its media, and its number of our codec."""
    found = {"audio": None, "video": None, "numbers": 96, "order": [], "level": None, "crypto": {}, "ours": ours}
    address = re.search(r"^c=IN IP[46] (\S+)", text, re.M).group(1)
    for section in re.split(r"^(?=m=)", text, flags=re.M)[1:]:
        kind, port = re.match(r"m=(\w+) (\d+)", section).groups()
        own = re.search(r"^c=IN IP[46] (\S+)", section, re.M)
        rtcp = re.search(r"^a=rtcp:(\d+)", section, re.M)
        found["order"].append(section.split("\r\n", 1)[0])
        number = number_of(section)
        level = re.search(r"^a=extmap:(\d+) urn:ietf:params:rtp-hdrext:ssrc-audio-level", section, re.M)
        if kind == "audio" and level:
            found["level"] = level.group(1)
        if int(port) and (kind == "audio" or number is not None):
            suite = SUITES[kind][0]
            crypto = re.search(rf"^a=crypto:(\d+) {suite} inline:([\w+/=]+)", section, re.M)
            if "srtp" in WORDS:
                if not crypto:
                    continue
                found["crypto"][kind] = (crypto.group(1), base64.b64decode(crypto.group(2)))
            rtcp_port = int(rtcp.group(1)) if rtcp else int(port) + 1
            found[kind] = (own.group(1) if own else address, int(port), rtcp_port)
            if kind == "video":
                found["numbers"] = number
    return found


def section_of(kind, profile, found, tags):
    """A section of ours."""
    if kind == "audio":
        lines = [f"m=audio {MEDIA} {profile} 0", "a=rtpmap:0 PCMU/8000"]
        if found["level"]:
            lines.append(f"a=extmap:{found['level']} urn:ietf:params:rtp-hdrext:ssrc-audio-level")
    else:
        number = found["numbers"]
        lines = [f"m=video {MEDIA + 2} {profile} {number}", f"a=rtpmap:{number} {CODEC}/90000",
                 f"a=rtcp-fb:{number} nack pli", f"a=rtcp-fb:{number} ccm fir"]
        lines += [f"a=fmtp:{number} {FMTP}"] if FMTP else []
    if "srtp" in WORDS:
        key = base64.b64encode(found["ours"][kind]).decode()
        lines.append(f"a=crypto:{tags.get(kind, '1')} {SUITES[kind][0]} inline:{key}")
    return lines


def describe(found, version, order, tags, wanted):
    """A description with these sections of ours, in this order."""
    lines = ["v=0", f"o=film 1 {version} IN {FAMILY} {ADDRESS}", "s=-", f"c=IN {FAMILY} {ADDRESS}", "t=0 0"]
    for line in order:
        kind, _, profile, formats = line[2:].split(" ", 3)
        if kind in wanted:
            lines += section_of(kind, profile, found, tags)
        else:
            lines.append(f"m={kind} 0 {profile} {formats}")
    return "\r\n".join(lines) + "\r\n"


class Dialog:
    """What a request of ours needs of the call that it is in."""

    def __init__(self, head, source):
        def value(name):
            return re.search(rf"^{name}\s*:\s*(.*?)\r?$", head, re.M | re.I).group(1)
        self.call_id, self.source, self.cseq = value("call-id"), source, 0
        self.target = re.search(r"<(.*?)>", value("contact")).group(1)
        to = value("to")
        self.own, self.far = to if ";tag=" in to else to + ";tag=film", value("from")

    def send(self, to, method, cseq, body):
        lines = [f"{method} {self.target} SIP/2.0", f"Via: SIP/2.0/UDP {ADDRESS}:{SIP};branch=z9hG4bK{method}{cseq}",
                 "Max-Forwards: 70", f"From: {self.own}", f"To: {self.far}", f"Call-ID: {self.call_id}", f"CSeq: {cseq} {method}",
                 f"Contact: <sip:film@{ADDRESS}:{SIP}>"]
        if body:
            lines.append("Content-Type: application/sdp")
        to.sendto("\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode(), self.source)


class Phone:
    """As much of SIP over UDP as one who is called needs."""

    def __init__(self):
        self.media, self.dialog, self.found, self.version, self.wants = None, None, None, 0, False
        self.sockets = [bound(MEDIA + at) for at in range(4)]
        self.socket = socket.socket(socket.AF_INET6 if FAMILY == "IP6" else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((ADDRESS, SIP))
        GLib.io_add_watch(self.socket.fileno(), GLib.IO_IN, self.request)
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGUSR1, self.lose)
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGUSR2, self.turn)

    def lose(self):
        if self.media:
            self.media.lose = True
        return True

    def turn(self):
        """Adds a picture to the call, or drops the one that it has."""
        self.wants, found, dialog = not self.media.shows, self.found, self.dialog
        order, wanted = list(found["order"]), {"audio", "video"} if self.wants else {"audio"}
        if not any(line.startswith("m=video") for line in order):
            order.append(order[0].replace("audio", "video"))
        self.version += 1
        tags = {kind: tag for kind, (tag, _) in found["crypto"].items()}
        dialog.cseq += 1
        method = "UPDATE" if "update" in WORDS else "INVITE"
        dialog.send(self.socket, method, dialog.cseq, describe(found, self.version, order, tags, wanted))
        return True

    def answered(self, head, body):
        """Our own offer has its answer."""
        cseq, method = re.search(r"^cseq\s*:\s*(\d+) (\w+)", head, re.M | re.I).groups()
        if not head.startswith("SIP/2.0 200") or int(cseq) != self.dialog.cseq:
            return
        if method == "INVITE":
            self.dialog.send(self.socket, "ACK", cseq, "")
        found = read_offer(body, self.found["ours"])
        if self.wants and not found["video"]:
            tell("refused")
            self.found["order"] = found["order"]
        else:
            self.shows(found)

    def shows(self, found):
        """Goes on with what was agreed on; whether there is a picture may have changed."""
        self.found = found
        if self.media and bool(found["video"]) == self.media.shows:
            return
        tell("call" if self.media is None else "added" if found["video"] else "gone")
        if self.media:
            self.media.end()
        self.media = Media(self.sockets, found)
        GLib.timeout_add(500, self.media.report)

    def request(self, *_):
        text, source = self.socket.recvfrom(65536)
        head, _, body = text.decode(errors="replace").partition("\r\n\r\n")
        method = head.split(" ", 1)[0]
        if method == "SIP/2.0":
            self.answered(head, body)
        elif method == "INVITE":
            if self.dialog is None:
                self.dialog = Dialog(head, source)
            ours = self.found["ours"] if self.found else {kind: os.urandom(SUITES[kind][2]) for kind in SUITES}
            found = read_offer(body, ours)
            self.version += 1
            tags = {kind: tag for kind, (tag, _) in found["crypto"].items()}
            wanted = {kind for kind in ("audio", "video") if found[kind]}
            self.answer(head, source, describe(found, self.version, found["order"], tags, wanted))
            self.shows(found)
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
