/* A qemu TCG plugin: the calling thread's number of guest instructions, written down at each mark.
 *
 * A mark is getsid() of a process that cannot exist (asterisk/bench/counting.py).
 * Source: "QEMU TCG Plugins" in qemu's documentation, API version 4.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <qemu-plugin.h>

#define MARK INT64_C(0x2A57E515)
#define GETSID 156 /* of AArch64's generic system calls */

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static qemu_plugin_u64 counter;
static FILE *out;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block, QEMU_PLUGIN_INLINE_ADD_U64, counter, qemu_plugin_tb_n_insns(block));
}

static void called(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t first,
                   uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                   uint64_t a8)
{
    if (number == GETSID && (int64_t)(first & 0xffffffff) == MARK) {
        fprintf(out, "%" PRIu64 "\n", qemu_plugin_u64_get(counter, vcpu));
        fflush(out);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = fopen(argv[i] + 4, "w");
        }
    }
    if (out == NULL) {
        fprintf(stderr, "instructions: out=FILE is needed\n");
        return -1;
    }
    counter = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
