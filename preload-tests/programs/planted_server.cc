// A server with a thread per connection, on the unix socket argv[1]: "login USER" gives the number of sessions there are,
// "echo TEXT" gives TEXT. A login replaces the session of the user's last one, and forgets to delete it.
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>

struct Session {
    std::string user;
    std::vector<long> rights;
};

class Registry {
    std::mutex mutex;
    std::map<std::string, Session *> sessions;

  public:
    __attribute__((noinline)) size_t login(const std::string &user) {
        std::lock_guard<std::mutex> held(mutex);
        Session *session = new Session(); // lost
        session->user = user;
        session->rights.assign(25, 7); // lost behind it
        sessions[user] = session;
        return sessions.size();
    }
};

static Registry registry;

// What a login has left below this frame would lie between the live words of the frames that wait for the next line.
static __attribute__((noinline)) void scrub() {
    volatile char room[16 << 10];
    for (size_t i = 0; i < sizeof room; i++) room[i] = 0;
}

static void serve(int peer) {
    FILE *from = fdopen(peer, "r");
    char line[256];
    while (fgets(line, sizeof line, from)) {
        std::string text(line, strcspn(line, "\n"));
        std::string answer = text.rfind("login ", 0) == 0 ? std::to_string(registry.login(text.substr(6))) : text.substr(5);
        answer += '\n';
        if (write(peer, answer.data(), answer.size()) < 0) break;
        scrub();
    }
    fclose(from);
}

int main(int, char **argv) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0 || listen(listener, 8) != 0) return 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
        int peer = accept(listener, nullptr, nullptr);
        if (peer < 0) return 1;
        std::thread(serve, peer).detach();
    }
}
