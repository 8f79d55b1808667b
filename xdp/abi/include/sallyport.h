/* SPDX-License-Identifier: Apache-2.0
 *
 * Contract 2: what the kernel program and userspace share. The Rust side is generated from this file.
 * Maps hold addresses, ids and counters: what an engineer may read. Keys never enter a map.
 */
#ifndef SALLYPORT_H
#define SALLYPORT_H

#include <linux/types.h>

/* Changes with every change of a key, a value or their meaning: pinned maps of another version are not adopted. */
#define SALLYPORT_ABI_VERSION 6

/* Zones. */
#define SALLYPORT_OUTSIDE 1
#define SALLYPORT_INSIDE 2

/* Sizes of maps; `flows` and `tallies` are sized by the loader. */
#define SALLYPORT_MEDIA_MAX 64
#define SALLYPORT_INTERFACES_MAX 4
#define SALLYPORT_BUCKETS_MAX 16384

/* RX queues of an interface that have a place in the socket map. */
#define SALLYPORT_QUEUES_MAX 64
#define SALLYPORT_XSKS_MAX (SALLYPORT_INTERFACES_MAX * SALLYPORT_QUEUES_MAX)

/* Octets, from the Ethernet header on, that an ordinary UMEM frame of 2048 takes behind its headroom of 320. */
#define SALLYPORT_FRAME_MAX 1728

/* In front of every redirected frame (bpf_xdp_adjust_meta). */
#define SALLYPORT_META_MAGIC 0x53505254u
#define SALLYPORT_META_FLOW 1u
#define SALLYPORT_META_PUNT 2u

struct sallyport_meta {
	__u32 magic;
	__u32 direction; /* of the flow; 0 for a punt */
	__u32 epoch;     /* of the flow; 0 for a punt */
	__u32 kind;
};

/* Whose packet: addresses are 16 octets, IPv4 mapped (RFC 4291 2.5.5.2); ports and addresses in network order. Inside, remote
 * port 0 stands for any that has no flow of its own. */
struct sallyport_flow_key {
	__u8 zone;
	__u8 pad[3];
	__u8 local_port[2];
	__u8 remote_port[2];
	__u8 local_address[16];
	__u8 remote_address[16];
};

/* Where packets leave to, of the family that they arrived by. Addresses as in the flow key. */
struct sallyport_target {
	__u8 source[16];
	__u8 destination[16];
	__u8 source_port[2];
	__u8 destination_port[2];
	__u8 macs[12];     /* destination and source, as on the wire */
	__u32 ifindex;     /* of the interface that they leave by */
	__u16 checksum;    /* ones' complement sum that new addresses and ports add to UDP's (RFC 1624), as loaded from the wire */
	__u8 traffic_class; /* DSCP and ECN */
	__u8 back;          /* 1: by the interface that they came in by, in the driver (XDP_TX) */
	__u16 mtu;          /* octets of the longest IP packet that may leave; longer ones are the worker's, which cuts them */
	__u8 pad[2];
};

/* What becomes of a flow's packets. */
#define SALLYPORT_ACTION_REDIRECT 0 /* to the worker, by AF_XDP */
#define SALLYPORT_ACTION_REWRITE 1  /* to `rtp` and `rtcp`; what is not well-formed, or of a payload type not listed, to the worker */

/* Counters are of packets that arrived, whatever became of them. */
struct sallyport_flow_value {
	struct sallyport_flow_key key; /* the flow's own, first: of a rewritten flow only */
	__u32 direction;
	__u32 epoch;
	__u64 packets;
	__u64 bytes;        /* UDP payload octets */
	__u64 last_seen_ns; /* CLOCK_MONOTONIC, 0: never */
	__u32 action;
	__u32 tally;            /* place of its tally; of a rewritten flow only, as all that follows */
	__u64 payload_types[2]; /* a bit each, 0 to 63 and 64 to 127 */
	struct sallyport_target rtp;
	struct sallyport_target rtcp; /* told apart by packet type (RFC 5761 section 4) */
};

/* What a flow's rewriting sent, by CPU. */
struct sallyport_tally {
	__u64 packets; /* RTP */
	__u64 octets;  /* of RTP payload, without padding */
};

/* Which destinations are media; everything else passes to the kernel. */
struct sallyport_media_key {
	__u8 zone;
	__u8 pad[3];
	__u8 address[16];
};

struct sallyport_media_value {
	__u16 port_min; /* host order, as all */
	__u16 port_max;
	__u16 browsers; /* where STUN of unknown sources is heard, be it one of the above or apart; 0: nowhere */
};

struct sallyport_interface_value {
	__u32 zone;
	__u32 xsk_base; /* place of queue 0 of the interface in the socket map */
	__u32 frame_max; /* octets, from the Ethernet header on, that the UMEM frames of its sockets take */
};

/* A source of STUN from nowhere known: its IPv4 address (mapped), or the first 64 bits of its IPv6 address. */
struct sallyport_source {
	__u8 address[16];
};

/* Its token bucket, kept as the time when all tokens will be back. */
struct sallyport_bucket {
	__u64 full_at_ns; /* CLOCK_MONOTONIC */
};

struct sallyport_settings {
	__u32 abi_version;
	__u32 punt_burst;       /* tokens of a full bucket */
	__u64 punt_interval_ns; /* time that a token takes to come back; 0: no limit */
	__u32 total_burst;      /* the same for all sources together */
	__u32 total_interval_ns;
};

/* Maps, by the names that they are pinned under. */
#define SALLYPORT_MAPS(X)                                                                                    \
	X(FLOWS, flows, "Flow key to flow value.")                                                           \
	X(MEDIA, media, "Media key to media value.")                                                         \
	X(INTERFACES, interfaces, "Interface index to interface value.")                                     \
	X(XSKS, xsks, "Place, which is xsk_base of the interface plus RX queue, to AF_XDP socket.")          \
	X(BUCKETS, buckets, "Source to token bucket; the least recently used makes way.")                    \
	X(TALLIES, tallies, "Place to tally, per CPU.")                                                      \
	X(COUNTERS, counters, "Counter to packets, per CPU.")                                                \
	X(SETTINGS, settings, "One entry: settings.")

/* Every way out of the program adds one to exactly one of these. */
#define SALLYPORT_COUNTERS(X)                                                                                \
	X(PASS_UNKNOWN_INTERFACE, pass_unknown_interface, "Came in by an interface that is none of ours.")   \
	X(PASS_NOT_IP, pass_not_ip, "Neither IPv4 nor IPv6, or too short to tell.")                          \
	X(PASS_NOT_UDP, pass_not_udp, "ICMP, ND, TCP, IPv6 extension headers: IP, but not UDP.")             \
	X(PASS_NOT_MEDIA, pass_not_media, "UDP to an address or port that is not media.")                    \
	X(PASS_FRAGMENT, pass_fragment, "Later UDP fragment inside: it names no port; a first one of media is dropped.") \
	X(REDIRECT_FLOW, redirect_flow, "Of a known flow, to the AF_XDP socket of its queue.")               \
	X(REDIRECT_BARE, redirect_bare, "As one of the two, without metadata, of which the driver knows nothing: userspace looks the flow up.") \
	X(REWRITE_RTP, rewrite_rtp, "RTP between plain peers, sent on from here with new headers.")          \
	X(REWRITE_RTCP, rewrite_rtcp, "RTCP between plain peers, sent on from here with new headers.")       \
	X(PUNT_STUN, punt_stun, "STUN to the browsers' port from an unknown source, to the AF_XDP socket, for control.")   \
	X(DROP_SOURCE, drop_source, "From an impossible source: ours, multicast, loopback, unspecified, port 0.") \
	X(DROP_UNKNOWN_FLOW, drop_unknown_flow, "To a media port, of no flow, and not STUN to the browsers' port.")        \
	X(DROP_STALE_FLOW, drop_stale_flow, "Of a flow that made way for another one while the packet was looked at.") \
	X(DROP_RATE_LIMITED, drop_rate_limited, "STUN beyond the rate of its source, or of all sources together.")                       \
	X(DROP_MALFORMED, drop_malformed, "To a media address, with headers or lengths that contradict each other.") \
	X(DROP_FRAGMENT, drop_fragment, "UDP fragment to a media port, or a later one outside.")             \
	X(DROP_TOO_LONG, drop_too_long, "To a media port, longer than a UMEM frame takes.")                  \
	X(DROP_NO_META, drop_no_meta, "The driver leaves no room for metadata in front of the frame, or has its own there.")                         \
	X(DROP_NO_SOCKET, drop_no_socket, "No AF_XDP socket is registered for this queue.")

enum sallyport_counter {
#define X(upper, lower, text) SALLYPORT_##upper,
	SALLYPORT_COUNTERS(X)
#undef X
	SALLYPORT_COUNTER_MAX,
};

_Static_assert(sizeof(struct sallyport_meta) == 16, "meta");
_Static_assert(sizeof(struct sallyport_flow_key) == 40, "flow key");
_Static_assert(sizeof(struct sallyport_flow_value) == 216, "flow value");
_Static_assert(sizeof(struct sallyport_target) == 60, "target");
_Static_assert(sizeof(struct sallyport_tally) == 16, "tally");
_Static_assert(sizeof(struct sallyport_media_key) == 20, "media key");
_Static_assert(sizeof(struct sallyport_media_value) == 6, "media value");
_Static_assert(sizeof(struct sallyport_interface_value) == 12, "interface value");
_Static_assert(sizeof(struct sallyport_source) == 16, "source");
_Static_assert(sizeof(struct sallyport_bucket) == 8, "bucket");
_Static_assert(sizeof(struct sallyport_settings) == 24, "settings");

#endif
