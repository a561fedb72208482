// errno CALL NUMBER [CALL NUMBER ...] -- COMMAND ARGUMENTS: runs a command whose system calls of these names fail with these errors,
// as those of some network file systems do.
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct call {
  const char *name;
  int numbers[4];
};

// Calls that do the same count together; -1 ends a list.
static const struct call CALLS[] = {
    {"flock", {SYS_flock, -1}},
    {"fsync", {SYS_fsync, SYS_fdatasync, -1}},
    {"fchmod", {SYS_fchmod,
#ifdef SYS_fchmodat2
                SYS_fchmodat2,
#endif
                -1}},
#ifdef SYS_link
    {"link", {SYS_link, SYS_linkat, -1}},
#else
    {"link", {SYS_linkat, -1}},
#endif
    {"renameat2", {SYS_renameat2, -1}},
};

int main(int argc, char **argv) {
  struct sock_filter filter[64];
  unsigned length = 0;
  int at = 1;
  filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2) {
    const struct call *call = NULL;
    for (unsigned known = 0; known < sizeof CALLS / sizeof *CALLS; known++)
      if (strcmp(CALLS[known].name, argv[at]) == 0) call = &CALLS[known];
    if (call == NULL) {
      fprintf(stderr, "no such call: %s\n", argv[at]);
      return 97;
    }
    for (unsigned n = 0; call->numbers[n] >= 0; n++) {
      filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call->numbers[n], 0, 1);
      filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | atoi(argv[at + 1]));
    }
  }
  filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {length, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
    perror("seccomp");
    return 99;
  }
  execvp(argv[at + 1], argv + at + 1);
  perror("exec");
  return 98;
}
