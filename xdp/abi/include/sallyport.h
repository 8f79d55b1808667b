/* SPDX-License-Identifier: Apache-2.0
 *
 * Contract 2: what the kernel program and userspace share. The Rust side is generated from this file.
 * Maps hold addresses, actions, ids and counters: what an engineer may read. Keys never enter a map.
 */
#ifndef SALLYPORT_H
#define SALLYPORT_H

#include <linux/types.h>

#define SALLYPORT_ABI_VERSION 1

/* Zones. */
#define SALLYPORT_OUTSIDE 1
#define SALLYPORT_INSIDE 2

/* Interfaces times queues that the socket map holds; an interface has this many places. */
#define SALLYPORT_QUEUES_MAX 64
#define SALLYPORT_SOCKETS_MAX 256

/* In front of every redirected frame. */
#define SALLYPORT_META_MAGIC 0x53505254u
#define SALLYPORT_META_FLOW 1u
#define SALLYPORT_META_PUNT 2u

struct sallyport_meta {
	__u32 magic;
	__u32 direction;
	__u32 epoch;
	__u32 kind;
};

/* Whose packet: addresses are 16 octets, IPv4 mapped; ports and addresses in network order. */
struct sallyport_flow_key {
	__u8 zone;
	__u8 pad[3];
	__u8 local_port[2];
	__u8 remote_port[2];
	__u8 local_address[16];
	__u8 remote_address[16];
};

struct sallyport_flow_value {
	__u32 direction;
	__u32 epoch;
	__u64 packets;
	__u64 bytes;        /* UDP payload octets */
	__u64 last_seen_ns; /* CLOCK_MONOTONIC, 0: never */
};

/* Which destinations are media; everything else passes to the kernel. */
struct sallyport_media_key {
	__u8 zone;
	__u8 pad[3];
	__u8 address[16];
};

struct sallyport_media_value {
	__u16 port_min; /* host order */
	__u16 port_max;
};

struct sallyport_interface_value {
	__u32 zone;
	__u32 socket_base; /* first place of the interface in the socket map */
};

/* Tokens of one source of STUN from nowhere known. */
struct sallyport_bucket {
	__u64 refilled_ns;
	__u64 tokens;
};

struct sallyport_settings {
	__u32 abi_version;
	__u32 punt_burst;      /* tokens of a full bucket */
	__u64 punt_refill_ns;  /* time that a token takes to come back */
};

/* Every way out of the program adds to exactly one. */
#define SALLYPORT_COUNTERS(X)                                                                                          \
	X(PASS_INTERFACE, pass_interface)           /* an interface that is none of ours */                            \
	X(PASS_NOT_UDP, pass_not_udp)               /* ARP, ND, ICMP, TCP ... */                                       \
	X(PASS_NOT_MEDIA, pass_not_media)           /* UDP to an address or port that is not media */                  \
	X(REDIRECT_FLOW, redirect_flow)             /* a known flow, to its AF_XDP socket */                           \
	X(REDIRECT_PUNT, redirect_punt)             /* STUN from an unknown address, to control */                     \
	X(DROP_UNKNOWN_FLOW, drop_unknown_flow)     /* media port, no flow, not STUN outside */                        \
	X(DROP_RATE_LIMITED, drop_rate_limited)     /* STUN beyond its source's rate */                                \
	X(DROP_MALFORMED, drop_malformed)           /* to us, with lengths that contradict each other */               \
	X(DROP_FRAGMENT, drop_fragment)             /* a fragment to a media address */                                \
	X(DROP_NO_SOCKET, drop_no_socket)           /* no AF_XDP socket on this queue */                               \
	X(DROP_NO_ROOM, drop_no_room)               /* the driver leaves no room for the metadata */

enum sallyport_counter {
#define X(upper, lower) SALLYPORT_##upper,
	SALLYPORT_COUNTERS(X)
#undef X
	SALLYPORT_COUNTER_MAX,
};

_Static_assert(sizeof(struct sallyport_meta) == 16, "meta");
_Static_assert(sizeof(struct sallyport_flow_key) == 40, "flow key");
_Static_assert(sizeof(struct sallyport_flow_value) == 32, "flow value");
_Static_assert(sizeof(struct sallyport_media_key) == 20, "media key");
_Static_assert(sizeof(struct sallyport_media_value) == 4, "media value");
_Static_assert(sizeof(struct sallyport_interface_value) == 8, "interface value");
_Static_assert(sizeof(struct sallyport_bucket) == 16, "bucket");
_Static_assert(sizeof(struct sallyport_settings) == 16, "settings");

#endif
